# What every kernel asks before it opens a parallel region.

cdef int threads_for(object wanted, Py_ssize_t n_pieces) except -1
cdef int granted(int n_threads) except -1
