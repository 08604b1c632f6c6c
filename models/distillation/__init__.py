"""A student learns on unlabeled pairs what a teacher of richer sensors sees in them."""
