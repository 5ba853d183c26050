"""SmolLM2-135M-Instruct as a Hugging Face directory: a real model that two CPU cores run."""
