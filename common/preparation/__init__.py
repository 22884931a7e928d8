"""How do films become a prepared set? Rules, arrays, folds, leaks, and every film accounted for."""
