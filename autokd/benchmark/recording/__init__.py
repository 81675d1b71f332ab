"""Trainings of an experiment, recorded by any number of processes that may be interrupted.

``record_jobs`` trains a list of jobs, ``table`` a whole table of distillers; both share ``scratch``, the folder with
claims and results, and ``trainer``, which trains as a worker of a search does.
"""
