"""The label engines that come with this package; see :class:`activelearn.config.ReferenceEngine`."""
