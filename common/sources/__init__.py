"""Which films does a source list, and what does it say of them? SIIM-ACR, NTUH, any other hospital."""
