"""Attention by its definition, in float64."""

import jax.numpy as jnp
import numpy as np

ARANGE = jnp.arange(64)


def expected(q, k, v, admitted=None, *, bias=None, scale=None, softcap=None):
    """One row of logits after the other, as the textbook has it."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    share = q.shape[-2] // k.shape[-2]
    k, v = (np.repeat(x, share, axis=-2) for x in (k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = np.einsum("...thd,...shd->...hts", q, k) * scale
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
        logits = logits + np.asarray(bias, np.float64)
    admitted = np.broadcast_to(True if admitted is None else admitted, logits.shape)
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for *batch, head, row in np.ndindex(logits.shape[:-1]):
        own = admitted[*batch, head, row]
        if own.any():
            row_logits = logits[*batch, head, row, own]
            weights = np.exp(row_logits - row_logits.max())
            weights /= weights.sum()
            y[*batch, row, head] = weights @ v[*batch, own, head]
    return y


def allowed(
    shape,
    *,
    causal=False,
    window=None,
    segments=None,
    key_segments=None,
    positions=None,
    key_positions=None,
    mask=True,
):
    """The mask `[B, H, T, S]`, entry by entry."""
    admitted = np.broadcast_to(mask, shape).copy()
    n, _, length, key_length = shape

    def rows(values, size):
        return np.broadcast_to(np.arange(size) if values is None else values, (n, size))

    at, key_at = rows(positions, length), rows(key_positions, key_length)
    before, after = (window - 1, 0) if isinstance(window, int) else window or (99, 99)
    for b, t, s in np.ndindex(n, length, key_length):
        distance = at[b, t] - key_at[b, s]
        fits = key_at[b, s] >= 0 and -after <= distance <= before
        if causal:
            fits &= distance >= 0
        if segments is not None:
            keys = segments if key_segments is None else key_segments
            fits &= rows(segments, length)[b, t] == rows(keys, key_length)[b, s]
        admitted[b, :, t, s] &= fits
    return admitted
