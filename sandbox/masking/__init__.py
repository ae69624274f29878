"""Masking: what hides secret values in every byte that leaves. ``Masker`` is the door."""
