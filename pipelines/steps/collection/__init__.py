"""The collection as it is: what is served, what it holds, what its server can do."""
