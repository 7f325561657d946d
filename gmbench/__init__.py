"""gmbench measures generative models of every family by the same yardstick."""
__version__ = "0.1.0"
