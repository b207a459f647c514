# Architectures, flags and sources of the CUDA kernels. Included when nvcc was found.
# SASS for every architecture of the list that this nvcc knows, PTX for the newest of them; a list given
# by the user is taken as it is.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch
                  OUTPUT_VARIABLE known RESULT_VARIABLE failed ERROR_QUIET)
  set(newest "")
  foreach(arch 75 80 86 89 90 100 120)
    if(known MATCHES "compute_${arch}(\n|$)")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
      set(newest ${arch})
    endif()
  endforeach()
  if(newest)
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
  endif()
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
  string(JOIN " " architectures ${CMAKE_CUDA_ARCHITECTURES})
  message(STATUS "Building the CUDA kernels for ${architectures}")
  target_sources(_core PRIVATE ${CUDA_SOURCES})
  set_target_properties(_core PROPERTIES
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
    CUDA_SEPARABLE_COMPILATION OFF CUDA_VISIBILITY_PRESET hidden
    CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  target_compile_definitions(_core PRIVATE
    USCONF_CUDA USCONF_CUDA_ARCHITECTURES="${architectures}")
  target_compile_options(_core PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3>)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
    target_compile_options(_core PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>)
  endif()
elseif(USCONF_CUDA STREQUAL "ON")
  message(FATAL_ERROR "USCONF_CUDA=ON, but ${CMAKE_CUDA_COMPILER} cannot compile C++20 for any of the "
                      "architectures wanted; use CUDA 12.0 or newer, or pass USCONF_CUDA=OFF")
else()
  message(STATUS "${CMAKE_CUDA_COMPILER} cannot compile the kernels: building for the CPU only")
endif()
