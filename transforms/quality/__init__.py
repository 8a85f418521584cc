"""How good a ranking is: judged queries, exact rankings of items, measures, and intervals by bootstrap."""
