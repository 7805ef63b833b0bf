"""Every command: reads its arguments, calls one room, and ends with one line where something is wrong."""
