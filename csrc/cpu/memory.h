// Large blocks of memory that are kept between calls.
#pragma once

#include <cstddef>

namespace usconf::cpu {

// A 64-byte aligned block. A large one is mapped by itself, in huge pages (first touch of small
// pages costs more than the arithmetic done on them), and pages never touched take no memory.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) { reserve(bytes); }
  Buffer(Buffer&& other) noexcept { *this = static_cast<Buffer&&>(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer() { release(); }

  // Makes the block at least this large; true when it had to grow, and then it is all zeros.
  // Throws std::bad_alloc.
  bool reserve(std::size_t bytes);
  void release();
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  void* mapping_ = nullptr;  // start of the pages behind a large block
  std::size_t mapped_ = 0;
};

// Memory handed out to the caller's side of the module, for factors that outlive a call: recycled,
// since first touch of 60 MB costs as much as half an elimination. Up to 1 GiB is kept for later
// blocks.
class Block {
 public:
  explicit Block(std::size_t bytes);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void* data() const { return buffer_.as<void>(); }
  std::size_t bytes() const { return bytes_; }

 private:
  Buffer buffer_;
  std::size_t bytes_;
};

void forget_blocks();

}  // namespace usconf::cpu
