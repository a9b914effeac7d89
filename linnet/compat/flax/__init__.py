"""Flax's Linen-era interface: code written for it runs, without Flax."""
