"""The commands: each reads its arguments, calls one subpackage, and reports a user error in one line."""
