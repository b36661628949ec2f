#include "net/grpc_health.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "base/check.h"
#include "wire/protobuf.h"

namespace llmd::net {
namespace {

constexpr size_t kRequestBytesMax = 4096;
// A watcher behind by this much takes nothing.
constexpr size_t kUnsentBytesMax = 4096;

// HealthCheckResponse{status = 1}.
void AppendResponse(HealthStatus status, std::string* out) {
  if (status == HealthStatus::kUnknown) return;  // proto3 leaves zeroes out
  out->push_back(0x08);
  out->push_back(static_cast<char>(status));
}

void AppendBytes(uint32_t number, std::string_view bytes, std::string* out) {
  out->push_back(static_cast<char>(number << 3 | 2));
  size_t size = bytes.size();
  for (; size >= 0x80; size >>= 7) out->push_back(static_cast<char>(size | 0x80));
  out->push_back(static_cast<char>(size));
  out->append(bytes);
}

// HealthListResponse{map<string, HealthCheckResponse> statuses = 1}.
std::string ListResponse(const std::vector<std::pair<std::string, HealthStatus>>& statuses) {
  std::string out;
  for (const auto& [name, status] : statuses) {
    std::string entry, value;
    AppendResponse(status, &value);
    AppendBytes(1, name, &entry);
    AppendBytes(2, value, &entry);
    AppendBytes(1, entry, &out);
  }
  return out;
}

// HealthCheckRequest{service = 1}.
bool ParseRequest(std::string_view message, std::string* service) {
  wire::ProtoReader in(message);
  for (wire::ProtoField field; in.Next(&field);) {
    if (field.number == 1 && in.Expect(field, wire::ProtoWire::kBytes)) *service = field.bytes;
  }
  return in.error() == wire::ProtoError::kNone;
}

}  // namespace

struct GrpcHealth::Impl {
  struct Subscriber {
    runtime::EventLoop* loop;
    std::weak_ptr<GrpcHealthService::Impl> service;
  };

  HealthStatus GetLocked(std::string_view name) const {
    for (const auto& [known, status] : statuses) {
      if (known == name) return status;
    }
    return others;
  }
  void TellLocked();

  mutable std::mutex mutex;
  std::vector<std::pair<std::string, HealthStatus>> statuses;  // guarded by mutex, as all below
  HealthStatus others = HealthStatus::kServiceUnknown;
  std::vector<Subscriber> subscribers;
};

struct GrpcHealthService::Impl {
  void Refresh();

  std::shared_ptr<GrpcHealth::Impl> health;
  std::set<Call*> watches;
};

// One Check, Watch or List; deletes itself at its end.
class GrpcHealthService::Call final : public GrpcHandler {
 public:
  enum class Method : uint8_t { kCheck, kWatch, kList };

  Call(Impl& service, GrpcCall& call, Method method)
      : service_(service), call_(call), method_(method) {}

  void OnMessagePiece(base::Slice piece, bool last) override {
    if (answered_) {
      call_.Finish(base::StatusCode::kInternal, "more than one request");
      return;
    }
    if (request_.size() + piece.size() > kRequestBytesMax) {
      call_.Finish(base::StatusCode::kResourceExhausted, "the request is too large");
      return;
    }
    request_ += piece.view();
    if (last) Answer();
  }
  void OnHalfClose() override {
    if (!answered_) call_.Finish(base::StatusCode::kInternal, "no request");
  }
  void OnEnd(GrpcEnd) override {
    service_.watches.erase(this);
    delete this;
  }

  // Of a watch: sends the status when it is another than before.
  void Refresh() {
    std::unique_lock lock(service_.health->mutex);
    const HealthStatus status = service_.health->GetLocked(name_);
    lock.unlock();
    if (status == sent_) return;
    if (call_.unsent_bytes() > kUnsentBytesMax) {
      call_.Reset();
      return;
    }
    sent_ = status;
    SendStatus(status);
  }

 private:
  void SendStatus(HealthStatus status) {
    std::string message;
    AppendResponse(status, &message);
    call_.Send(message);
  }

  void Answer() {
    answered_ = true;
    if (method_ == Method::kList) {
      std::unique_lock lock(service_.health->mutex);
      const std::string message = ListResponse(service_.health->statuses);
      lock.unlock();
      call_.Send(message);
      call_.Finish(base::StatusCode::kOk);
      return;
    }
    if (!ParseRequest(request_, &name_)) {
      call_.Finish(base::StatusCode::kInternal, "the request is not a HealthCheckRequest");
      return;
    }
    std::unique_lock lock(service_.health->mutex);
    const HealthStatus status = service_.health->GetLocked(name_);
    lock.unlock();
    if (method_ == Method::kWatch) {
      service_.watches.insert(this);
      sent_ = status;
      SendStatus(status);
    } else if (status == HealthStatus::kServiceUnknown) {
      call_.Finish(base::StatusCode::kNotFound, "unknown service");
    } else {
      SendStatus(status);
      call_.Finish(base::StatusCode::kOk);
    }
  }

  Impl& service_;
  GrpcCall& call_;
  const Method method_;
  bool answered_ = false;
  HealthStatus sent_ = HealthStatus::kUnknown;
  std::string request_;
  std::string name_;
};

void GrpcHealthService::Impl::Refresh() {
  for (Call* watch : watches) watch->Refresh();
}

void GrpcHealth::Impl::TellLocked() {
  for (const Subscriber& subscriber : subscribers) {
    subscriber.loop->Post([weak = subscriber.service] {
      if (auto service = weak.lock()) service->Refresh();
    });
  }
}

GrpcHealth::GrpcHealth() : impl_(std::make_shared<Impl>()) {}
GrpcHealth::~GrpcHealth() = default;

void GrpcHealth::Set(std::string_view name, HealthStatus status) {
  std::lock_guard lock(impl_->mutex);
  auto& statuses = impl_->statuses;
  auto at = std::find_if(statuses.begin(), statuses.end(),
                         [&](const auto& entry) { return entry.first == name; });
  if (at == statuses.end()) {
    if (statuses.size() == kNamesMax) {
      LLMD_BUG("more health service names than GrpcHealth::kNamesMax");
      return;
    }
    statuses.emplace_back(name, status);
  } else if (std::exchange(at->second, status) == status) {
    return;
  }
  impl_->TellLocked();
}

void GrpcHealth::SetOthers(HealthStatus status) {
  std::lock_guard lock(impl_->mutex);
  if (std::exchange(impl_->others, status) != status) impl_->TellLocked();
}

HealthStatus GrpcHealth::Get(std::string_view name) const {
  std::lock_guard lock(impl_->mutex);
  return impl_->GetLocked(name);
}

std::vector<std::pair<std::string, HealthStatus>> GrpcHealth::List() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->statuses;
}

GrpcHealthService::GrpcHealthService(runtime::EventLoop& loop, GrpcHealth& health)
    : impl_(std::make_shared<Impl>()) {
  impl_->health = health.impl_;
  std::lock_guard lock(health.impl_->mutex);
  health.impl_->subscribers.push_back({&loop, impl_});
}

GrpcHealthService::~GrpcHealthService() {
  LLMD_CHECK(impl_->watches.empty(), "a GrpcHealthService was destroyed before its server");
  std::lock_guard lock(impl_->health->mutex);
  std::erase_if(impl_->health->subscribers, [this](const GrpcHealth::Impl::Subscriber& s) {
    return s.service.lock() == impl_;
  });
}

GrpcHandler* GrpcHealthService::OnCall(GrpcCall& call) {
  const std::string_view method = call.path().substr(kPath.size());
  if (method == "Check") return new Call(*impl_, call, Call::Method::kCheck);
  if (method == "Watch") return new Call(*impl_, call, Call::Method::kWatch);
  if (method == "List") return new Call(*impl_, call, Call::Method::kList);
  call.Finish(base::StatusCode::kUnimplemented, "unknown method of grpc.health.v1.Health");
  return nullptr;
}

size_t GrpcHealthService::watch_count() const { return impl_->watches.size(); }

}  // namespace llmd::net
