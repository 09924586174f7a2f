"""The demonstration: recorded agents, a tool that goes down, and the loop that refuses it and brings it back."""

from fuseboard_streams.demo.run import run_demo

__all__ = ["run_demo"]
