# Architectures, flags and sources of the CUDA kernels. Included when nvcc was found.
# A list given by the user is taken as it is. Else: the core must stay below 3 MB in the wheel. SASS for 80 runs on
# 86 and 89 too; what has none compiles the PTX for 75 once, when it is first used, and keeps it.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch
                  OUTPUT_VARIABLE known RESULT_VARIABLE failed ERROR_QUIET)
  foreach(arch 75-virtual 80-real 90-real 120-real)
    string(REGEX MATCH "[0-9]+" number ${arch})
    if(known MATCHES "compute_${number}(\n|$)")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch})
    endif()
  endforeach()
  # All but the random walk's kernels come as these two only, for the wheel's size.
  set(lean_architectures ${CMAKE_CUDA_ARCHITECTURES})
  list(FILTER lean_architectures INCLUDE REGEX "^(75-virtual|80-real)$")
else()
  set(lean_architectures ${CMAKE_CUDA_ARCHITECTURES})
endif()

set(usable TRUE)
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(usable FALSE)
elseif(USCONF_CUDA STREQUAL "AUTO")
  # An nvcc that is too old, or that does not get along with the host compiler, must not break a build
  # that nobody asked to have CUDA in.
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} -std=c++20 -c -o ${CMAKE_BINARY_DIR}/probe.o
                          ${CMAKE_CURRENT_LIST_DIR}/probe.cu
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(failed)
    set(usable FALSE)
  endif()
endif()

if(usable)
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_EXTENSION_COMPILE_OPTION)
    # CMake older than 3.26 or so does not know that newer compilers take C++20.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  string(JOIN " " architectures ${CMAKE_CUDA_ARCHITECTURES})
  message(STATUS "Building the CUDA kernels for ${architectures}")
  find_package(CUDAToolkit REQUIRED)
  # Apart from _core: its flags must not change with where pybind11 lies, or every build compiles anew.
  add_library(usconf_cuda OBJECT ${CUDA_SOURCES})
  add_library(usconf_cuda_lean OBJECT ${CUDA_LEAN_SOURCES})
  set_target_properties(usconf_cuda PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  set_target_properties(usconf_cuda_lean PROPERTIES CUDA_ARCHITECTURES "${lean_architectures}")
  set_target_properties(_core PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(_core PRIVATE CUDA::cudart_static)
  foreach(library usconf_cuda usconf_cuda_lean)
    target_sources(_core PRIVATE $<TARGET_OBJECTS:${library}>)
    set_target_properties(${library} PROPERTIES
      CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
      CUDA_SEPARABLE_COMPILATION OFF CUDA_VISIBILITY_PRESET hidden)
    target_include_directories(${library} PRIVATE csrc)
    target_compile_definitions(${library} PRIVATE USCONF_CUDA)
    target_compile_options(${library} PRIVATE -O3)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
      target_compile_options(${library} PRIVATE --compress-mode=size)
    endif()
  endforeach()
  target_compile_definitions(_core PRIVATE
    USCONF_CUDA USCONF_CUDA_ARCHITECTURES="${architectures}")
elseif(USCONF_CUDA STREQUAL "ON")
  message(FATAL_ERROR "USCONF_CUDA=ON, but ${CMAKE_CUDA_COMPILER} cannot compile C++20 for any of the "
                      "architectures wanted; use CUDA 12.0 or newer, or pass USCONF_CUDA=OFF")
else()
  message(STATUS "${CMAKE_CUDA_COMPILER} cannot compile the kernels: building for the CPU only")
endif()
