"""The service: searches of several users on one cluster, by REST and by pages (``autokd serve``).

It needs the extra ``autokd[service]``. The database has who, what, when and where; jobs are run by a ``JobBackend``
(Ray's jobs); ``reconcile`` brings the two together; what a search found is in its run directory and its study.
"""
