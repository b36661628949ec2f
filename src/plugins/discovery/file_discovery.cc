#include "plugins/discovery/file_discovery.h"

#include <arpa/inet.h>

#include <algorithm>
#include <set>

#include "base/strings.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

// A port as upstream writes it, a text, or as people do, a number.
class PortType final : public config::Type<uint16_t> {
 public:
  bool Read(const config::Node& node, const config::ReadOptions& options,
            uint16_t* out) const override {
    const bool scalar =
        node.kind() == config::NodeKind::kString || node.kind() == config::NodeKind::kInt;
    const auto port = scalar ? base::ParseInt(node.text()) : std::nullopt;
    if (!port || *port < 1 || *port > 65535) {
      options.errors->Add(node, "not a port, allowed are 1 to 65535");
      return false;
    }
    *out = static_cast<uint16_t>(*port);
    return true;
  }
  config::Value Write(const uint16_t& port) const override {
    return config::Value(std::to_string(port));
  }
  config::Value Describe() const override {
    config::Value types = config::Value::EmptyList();
    types.Append("string").Append("integer");
    return config::Value::EmptyMap().Set("type", std::move(types));
  }
};

class AddressType final : public config::Type<std::string> {
 public:
  bool Read(const config::Node& node, const config::ReadOptions& options,
            std::string* out) const override {
    const bool text = node.kind() == config::NodeKind::kString;
    if (!text || !IsValidAddress(node.text())) {
      options.errors->Add(node, "not an IPv4 or IPv6 address or DNS name");
      return false;
    }
    *out = node.text();
    return true;
  }
  config::Value Write(const std::string& address) const override { return config::Value(address); }
  config::Value Describe() const override {
    return config::Value::EmptyMap().Set("type", "string");
  }
};

struct Entry {
  std::string name;
  std::string name_space = "default";
  std::string address;
  uint16_t port = 0;
  config::StringMapValue labels;
  config::Node node;
};

struct File {
  std::vector<Entry> endpoints;
};

const config::ObjectType<File>& FileType() {
  static const auto entry =
      config::Object<Entry>("Endpoint")
          .Required("name", "Name, unique in its namespace.", &Entry::name, config::String(1, 253))
          .Field("namespace", "Namespace of the name.", &Entry::name_space, config::String(1, 253))
          .Required("address", "IPv4 or IPv6 address, or DNS name.", &Entry::address,
                    std::make_shared<AddressType>())
          .Required("port", "Port of the inference API.", &Entry::port,
                    std::make_shared<PortType>())
          .Field("labels", "Labels for filters.", &Entry::labels)
          .Where(&Entry::node)
          .Build();
  static const auto type = config::Object<File>("EndpointsFile")
                               .Field("endpoints", "The endpoints.", &File::endpoints,
                                      config::List<Entry>(entry, fleet::kEndpointsMax))
                               .Build();
  return *type;
}

struct Parameters {
  std::string path;
  bool watch_file = false;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("FileDiscoveryParameters")
          .Required("path", "The endpoints file.", &Parameters::path, config::String(1))
          .Field("watchFile", "Read the file again when it changes.", &Parameters::watch_file)
          .Build();
  return *type;
}

class FileDiscovery final : public plugin::Plugin, public plugin::EndpointDiscovery {
 public:
  FileDiscovery(const Parameters& parameters, plugin::PluginContext& context)
      : file_{.path = parameters.path, .watch = parameters.watch_file} {
    if (file_.path.empty()) {  // no parameters at all
      context.errors().Add(context.parameters(),
                           base::Concat("plugin \"", context.name(),
                                        "\": the parameter path is missing, it names the file"));
    }
  }
  const plugin::FileSpec& file() const override { return file_; }

  base::Result<std::vector<fleet::EndpointSpec>> Read(std::string_view bytes) const override {
    config::ErrorList errors;
    File parsed;
    const auto document = config::Document::Parse(bytes, file_.path, &errors);
    if (document && !document->root().is_null()) {
      FileType().Read(document->root(), {.errors = &errors}, &parsed);
    }
    std::vector<fleet::EndpointSpec> specs;
    std::set<std::pair<std::string_view, std::string_view>> names;
    for (const Entry& entry : parsed.endpoints) {
      if (!names.insert({entry.name_space, entry.name}).second) {
        errors.Add(
            entry.node.FindOrSelf("name"),
            base::Concat("the endpoint ", entry.name_space, "/", entry.name, " is listed twice"));
      }
      fleet::EndpointSpec spec{.name = entry.name,
                               .name_space = entry.name_space,
                               .address = entry.address,
                               .port = entry.port,
                               .labels = {entry.labels.begin(), entry.labels.end()}};
      const std::string* draining = spec.Label(kDrainingLabel);
      spec.draining = draining && *draining == "true";
      specs.push_back(std::move(spec));
    }
    if (!errors.ok()) return std::unexpected(errors.ToStatus());
    return specs;
  }

 private:
  const plugin::FileSpec file_;
};

}  // namespace

bool IsValidAddress(std::string_view address) {
  if (address.empty() || address.size() > 253) return false;
  const std::string text(address);
  in6_addr parsed;
  if (address.find(':') != std::string_view::npos) {
    return inet_pton(AF_INET6, text.c_str(), &parsed) == 1;
  }
  // Digits and dots are an IPv4 address or nothing: a typing error must not become a DNS name.
  if (address.find_first_not_of("0123456789.") == std::string_view::npos) {
    return inet_pton(AF_INET, text.c_str(), &parsed) == 1;
  }
  if (address.back() == '.') address.remove_suffix(1);  // fully qualified
  for (std::string_view label : base::Split(address, '.')) {
    if (label.empty() || label.size() > 63) return false;
    if (label.front() == '-' || label.back() == '-') return false;
    const bool clean = std::all_of(label.begin(), label.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_';  // compose services and some clusters have underscores
    });
    if (!clean) return false;
  }
  return true;
}

plugin::PluginType FileDiscoveryType() {
  return MakeType<FileDiscovery>("file-discovery", "Takes the endpoints from a file.",
                                 ParametersType);
}

}  // namespace llmd::plugins
