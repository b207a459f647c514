#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <new>
#include <utility>

#include "threads.h"

namespace usconf::cpu {
namespace {

constexpr std::size_t huge = std::size_t{1} << 21;

constexpr std::size_t blocks_kept = std::size_t{1} << 30;  // bytes

ForkMutex block_mutex;
std::list<Buffer> blocks;  // given back last first

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

bool Buffer::reserve(std::size_t bytes) {
  if (bytes <= bytes_) return false;
  release();
  if (bytes < huge) {
    bytes = (bytes + 63) / 64 * 64;
    if (posix_memalign(&data_, 64, bytes) != 0) {
      data_ = nullptr;
      throw std::bad_alloc();
    }
    std::memset(data_, 0, bytes);
  } else {
    mapped_ = bytes + huge;
    void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      mapped_ = 0;
      throw std::bad_alloc();
    }
    mapping_ = p;
    data_ = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(p) + huge - 1) & ~(huge - 1));
#if defined(MADV_HUGEPAGE)
    madvise(data_, bytes / huge * huge, MADV_HUGEPAGE);  // the rest in small pages: none is wasted
#endif
  }
  bytes_ = bytes;
  return true;
}

void Buffer::release() {
  if (mapping_)
    munmap(mapping_, mapped_);
  else
    std::free(data_);
  data_ = mapping_ = nullptr;
  bytes_ = mapped_ = 0;
}

Block::Block(std::size_t bytes) : bytes_(bytes) {
  {
    const std::lock_guard<ForkMutex> lock(block_mutex);
    // Not one that is much too large: it may be wanted whole.
    const auto it = std::find_if(blocks.begin(), blocks.end(), [&](const Buffer& b) {
      return b.bytes() >= bytes && b.bytes() / 2 <= bytes;
    });
    if (it != blocks.end()) {
      buffer_ = std::move(*it);
      blocks.erase(it);
    }
  }
  buffer_.reserve(bytes);
}

Block::~Block() {
  std::list<Buffer> dropped;  // freed outside the lock
  const std::lock_guard<ForkMutex> lock(block_mutex);
  blocks.push_front(std::move(buffer_));
  std::size_t held = 0;
  for (auto it = blocks.begin(); it != blocks.end();) {
    held += it->bytes();
    const auto next = std::next(it);
    if (held > blocks_kept) dropped.splice(dropped.end(), blocks, it);
    it = next;
  }
}

void forget_blocks() {
  std::list<Buffer> dropped;
  const std::lock_guard<ForkMutex> lock(block_mutex);
  dropped.swap(blocks);
}

}  // namespace usconf::cpu
