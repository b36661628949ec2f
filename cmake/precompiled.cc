// Names the translation unit that CMake wants beside a precompiled header.
