"""A page to look at pictures, train, draw, edit and judge, beside the server's interface in one process.

It knows runs by what lies in their folders, and trains and evaluates by starting this program's own commands.
"""
