// Status and Result: how a fallible call answers at a room border.
//
// The codes are gRPC's, so that mapping to an HTTP status, an ext_proc reply or a metric label is a
// table and not judgment. A message says what happened, where, and what to do. Values are immutable
// and thread-compatible; an OK Status costs one pointer.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace llmd::base {

// Numeric values are gRPC's (github.com/grpc/grpc: doc/statuscodes.md).
enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "INVALID_ARGUMENT" and so on.
std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  // `code` must not be kOk: a message that says nothing failed would be lost.
  Status(StatusCode code, std::string message);

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return rep_ ? rep_->code : StatusCode::kOk; }
  // Empty when ok. Valid as long as this Status or a copy lives.
  std::string_view message() const { return rep_ ? std::string_view(rep_->message) : ""; }
  // "INVALID_ARGUMENT: message" or "OK".
  std::string ToString() const;
  // The same code with `context` and ": " before the message; OK stays OK.
  Status WithContext(std::string_view context) const;

 private:
  struct Rep {
    StatusCode code;
    std::string message;
  };
  std::shared_ptr<const Rep> rep_;
};

template <class T>
using Result = std::expected<T, Status>;

inline Status OkStatus() { return {}; }
Status InvalidArgument(std::string message);
Status NotFound(std::string message);
Status FailedPrecondition(std::string message);
Status ResourceExhausted(std::string message);
Status Unavailable(std::string message);
Status Unimplemented(std::string message);
Status DeadlineExceeded(std::string message);
Status Internal(std::string message);
// Code from an errno value, message "`what`: <strerror>".
Status ErrnoStatus(int errno_value, std::string_view what);

}  // namespace llmd::base

// Returns the Status of `expr` from the enclosing function unless it is OK. Works in functions that
// return Status or Result<T>.
#define LLMD_RETURN_IF_ERROR(expr)                                        \
  do {                                                                    \
    if (::llmd::base::Status llmd_status = (expr); !llmd_status.ok())     \
      return ::llmd::base::internal::Propagate{std::move(llmd_status)};   \
  } while (false)

// `lhs` becomes the value of the Result `expr`; an error is returned from the enclosing function.
#define LLMD_ASSIGN_OR_RETURN(lhs, expr) \
  LLMD_ASSIGN_OR_RETURN_IMPL(LLMD_CONCAT(llmd_result_, __LINE__), lhs, expr)
#define LLMD_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr)                            \
  auto tmp = (expr);                                                          \
  if (!tmp) return ::llmd::base::internal::Propagate{std::move(tmp).error()}; \
  lhs = *std::move(tmp)
#define LLMD_CONCAT(a, b) LLMD_CONCAT_INNER(a, b)
#define LLMD_CONCAT_INNER(a, b) a##b

namespace llmd::base::internal {
// Converts to whichever carrier the enclosing function returns.
struct Propagate {
  Status status;
  operator Status() && { return std::move(status); }
  template <class T>
  operator std::expected<T, Status>() && {
    return std::unexpected(std::move(status));
  }
};
}  // namespace llmd::base::internal
