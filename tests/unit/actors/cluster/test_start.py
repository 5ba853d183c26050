"""What is done around Ray's start, without Ray running."""

import stat

from actors.cluster.start import hide_token


def test_rays_token_becomes_unreadable_for_others(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    hide_token()  # there is none
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    hide_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
