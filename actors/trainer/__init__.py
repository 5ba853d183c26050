"""Trainers: DeepSpeed ranks under Ray Train."""
