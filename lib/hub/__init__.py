"""What the Hub says: pull, drift, supply chain, search."""
