"""Errors of label smoothing, mixup and cutmix."""

from errors.case import before, case, swap

CASES = [
    case(
        "LN-VALUE-02",
        "share of the labels",
        """
        alpha = 1.5
        labels = F.label_smoothing(jnp.eye(2), alpha)
        """,
        swap("alpha = 1.5", check="assert labels[0, 0] == 0.95"),
        start="`alpha` is 1.5,",
    ),
    case(
        "LN-VALUE-03",
        "mixup of nothing",
        """
        alpha = 0.0
        mixed = F.mixup(x, key, alpha)
        """,
        swap("alpha = 0.0", check="assert mixed.shape == (4, 7)"),
        start="`alpha` is 0.0,",
    ),
    case(
        "LN-DTYPE-01",
        "smoothed numbers of classes",
        """
        labels = jnp.array([3, 1])
        smooth = F.label_smoothing(labels, 0.1)
        """,
        before(
            "smooth = F.label_smoothing(labels, 0.1)",
            check="assert smooth.shape == (2, 10)",
        ),
        start="`labels` is int32[2],",
    ),
    case(
        "LN-DTYPE-01",
        "mixed numbers of classes",
        """
        batch = x, jnp.array([3, 1, 0, 2])
        mixed, soft = F.mixup(batch, key)
        """,
        before(
            "mixed, soft = F.mixup(batch, key)", check="assert soft.shape == (4, 10)"
        ),
        start="`batch` holds int32[4],",
    ),
    case(
        "LN-SHAPE-01",
        "mixed with a scalar",
        """
        labels, weight = jnp.eye(4), jnp.array(1.0)
        batch = x, labels, weight
        batch = F.mixup(batch, key)
        """,
        swap("batch = x, labels, weight", check="assert len(batch) == 2"),
        start="the batch is float32[4, 7], float32[4, 4], float32[],",
    ),
    case(
        "LN-SHAPE-02",
        "cutmix without spatial axes",
        """
        labels = jnp.eye(4)
        mixed, soft = F.cutmix(x, labels, key)
        """,
        before(
            "mixed, soft = F.cutmix(x, labels, key)",
            check="assert mixed.shape == (4, 7, 1)",
        ),
        start="`x` is float32[4, 7], but it must have spatial axes",
    ),
]
