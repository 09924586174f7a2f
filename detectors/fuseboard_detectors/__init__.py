"""Detection mathematics: pure and vectorised."""
