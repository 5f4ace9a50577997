// The version of the interface between this library and Python; the build defines it.
extern "C" int tgen_abi(void) { return TGEN_ABI; }
