"""Where tables come from: a module for each data set, whose `load` is an option of conf/data. A new one: docs/extending.md."""
