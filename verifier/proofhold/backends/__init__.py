"""One module for each kind of evidence. They never import each other, and none of them sees a policy."""
