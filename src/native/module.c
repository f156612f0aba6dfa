#include "native.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "indelible._native", NULL, -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    if (sha256_start()) {
        PyErr_SetString(PyExc_ImportError, "SHA-256 does not give the standard's examples on this processor");
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntConstant(module, "VERSION", VERSION) || capture_start(module) || frame_start(module) || row_start(module) ||
        PyModule_AddFunctions(module, capture_functions) || PyModule_AddFunctions(module, fingerprint_functions) ||
        PyModule_AddFunctions(module, frame_functions) || PyModule_AddFunctions(module, id_functions) ||
        PyModule_AddFunctions(module, row_functions) || PyModule_AddFunctions(module, sha256_functions)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
