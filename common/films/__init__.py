"""How is one image file read? Files -> 8-bit films, and the facts of their headers; annotations -> masks."""
