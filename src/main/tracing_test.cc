#include "main/tracing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace llmd {
namespace {

using control::OtlpOptions;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using Variables = std::map<std::string, std::string>;

std::shared_ptr<const control::TracingOptions> Read(const Variables& variables,
                                                    std::vector<std::string>* warnings) {
  return ReadTracing(
      [&](const char* name) -> const char* {
        const auto at = variables.find(name);
        return at == variables.end() ? nullptr : at->second.c_str();
      },
      "llm-d-epp", warnings);
}

// The tour: what upstream's chart sets.
TEST(Tracing, TheChartsEnvironment) {
  std::vector<std::string> warnings;
  const auto tracing = Read(
      {{"OTEL_SERVICE_NAME", "llm-d-router/epp"},
       {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.monitoring.svc.cluster.local:4317"},
       {"OTEL_TRACES_EXPORTER", "otlp"},
       {"OTEL_RESOURCE_ATTRIBUTES", "k8s.namespace.name=prod,k8s.pod.name=epp-0"},
       {"OTEL_TRACES_SAMPLER", "parentbased_traceidratio"},
       {"OTEL_TRACES_SAMPLER_ARG", "0.25"}},
      &warnings);
  ASSERT_TRUE(tracing);
  EXPECT_THAT(warnings, IsEmpty());
  const OtlpOptions& o = tracing->exporter;
  EXPECT_EQ(o.protocol, OtlpOptions::Protocol::kGrpc);
  EXPECT_EQ(o.host, "otel-collector.monitoring.svc.cluster.local");
  EXPECT_EQ(o.port, 4317);
  EXPECT_FALSE(o.tls);
  EXPECT_THAT(o.resource, ElementsAre(Pair("service.name", "llm-d-router/epp"),
                                      Pair("k8s.namespace.name", "prod"),
                                      Pair("k8s.pod.name", "epp-0")));
  EXPECT_TRUE(tracing->tracer.sampler.parent_based);
  EXPECT_EQ(tracing->tracer.sampler.bound, uint64_t{1} << 61);
}

TEST(Tracing, WhenTracesAreMade) {
  const struct {
    Variables variables;
    bool on;
    std::string_view warning = "";
  } cases[] = {
      {{}, false},
      {{{"OTEL_SERVICE_NAME", "x"}}, false},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"}}, true},
      {{{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317"}}, true},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", " "}}, false},
      {{{"OTEL_TRACES_EXPORTER", "otlp"}}, true},
      {{{"OTEL_TRACES_EXPORTER", "none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"}},
       false},
      {{{"OTEL_TRACES_EXPORTER", "console"}}, false, "\"console\" is not built"},
      {{{"OTEL_TRACES_EXPORTER", "otlp"}, {"OTEL_SDK_DISABLED", "True"}}, false},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c"}}, false, "is not http://HOST:PORT"},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://"}}, false, "is not http://HOST:PORT"},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999"}}, false, "is not http://HOST:PORT"},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:p@c:1"}}, false, "is not http://HOST:PORT"},
      {{{"OTEL_TRACES_EXPORTER", "otlp"}, {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"}}, false,
       "\"http/json\" is not built"},
  };
  for (const auto& c : cases) {
    std::vector<std::string> warnings;
    EXPECT_EQ(Read(c.variables, &warnings) != nullptr, c.on)
        << ::testing::PrintToString(c.variables);
    if (c.warning.empty()) {
      EXPECT_THAT(warnings, IsEmpty());
    } else {
      EXPECT_THAT(warnings, ElementsAre(HasSubstr(std::string(c.warning))));
    }
  }
}

TEST(Tracing, WhereTo) {
  const struct {
    Variables variables;
    std::string_view host;
    uint16_t port;
    bool tls;
    std::string_view path = "/v1/traces";
  } cases[] = {
      {{}, "localhost", 4317, false},
      {{{"OTEL_EXPORTER_OTLP_INSECURE", "false"}}, "localhost", 4317, true},
      {{{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"}}, "localhost", 4317, true},
      {{{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}}, "localhost", 4318, false},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"}}, "c", 4317, true},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "HTTP://[fd00::1]:55"}}, "fd00::1", 55, false},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://[fd00::1]"}}, "fd00::1", 4317, false},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "c:55"}}, "c", 55, true},
      {{{"OTEL_EXPORTER_OTLP_ENDPOINT", "c:55"}, {"OTEL_EXPORTER_OTLP_INSECURE", "true"}}, "c", 55,
       false},
      {{{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/base/"}},
       "c", 4318, false, "/base/v1/traces"},
      {{{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/base/"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:1/mine"}},
       "d", 1, false, "/mine"},
      {{{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d"}},
       "d", 4317, false, "/"},
  };
  for (const auto& c : cases) {
    Variables variables = c.variables;
    variables["OTEL_TRACES_EXPORTER"] = "otlp";
    std::vector<std::string> warnings;
    const auto tracing = Read(variables, &warnings);
    ASSERT_TRUE(tracing) << ::testing::PrintToString(variables);
    const OtlpOptions& o = tracing->exporter;
    EXPECT_EQ(o.host, c.host);
    EXPECT_EQ(o.port, c.port) << c.host;
    EXPECT_EQ(o.tls, c.tls) << c.host << ":" << c.port;
    EXPECT_EQ(o.path, c.path);
    EXPECT_THAT(warnings, IsEmpty());
  }
}

TEST(Tracing, LimitsHeadersAndWhatIsWrongInThem) {
  std::vector<std::string> warnings;
  const auto tracing =
      Read({{"OTEL_TRACES_EXPORTER", "otlp"},
            {"OTEL_EXPORTER_OTLP_TIMEOUT", "2500"},
            {"OTEL_BSP_SCHEDULE_DELAY", "200"},
            {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"},
            {"OTEL_BSP_MAX_QUEUE_SIZE", "no"},
            {"OTEL_EXPORTER_OTLP_HEADERS",
             "Authorization=Bearer%20abc%3D, x-tenant=t1,bad name=1,novalue,b=%0a"},
            {"OTEL_RESOURCE_ATTRIBUTES", "service.name=ours,a=b%2Cc,=x,d=%zz"},
            {"OTEL_TRACES_SAMPLER", "jaeger_remote"},
            {"OTEL_TRACES_SAMPLER_ARG", "7"},
            {"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"}},
           &warnings);
  ASSERT_TRUE(tracing);
  const OtlpOptions& o = tracing->exporter;
  EXPECT_EQ(o.timeout, milliseconds(2500));
  EXPECT_EQ(o.interval, milliseconds(200));
  EXPECT_EQ(o.batch_spans_max, 64u);
  EXPECT_EQ(tracing->tracer.queue_spans_max, telemetry::TracerOptions{}.queue_spans_max);
  EXPECT_THAT(o.headers,
              ElementsAre(Pair("authorization", "Bearer abc="), Pair("x-tenant", "t1")));
  EXPECT_THAT(o.resource, ElementsAre(Pair("service.name", "ours"), Pair("a", "b,c")));
  EXPECT_EQ(tracing->tracer.sampler.bound, telemetry::TraceSampler::Ratio(0.1, true).bound);
  EXPECT_THAT(warnings,
              ElementsAre(HasSubstr("SAMPLER_ARG"), HasSubstr("jaeger_remote"),
                          HasSubstr("QUEUE_SIZE"), HasSubstr("novalue"), HasSubstr("bad name"),
                          HasSubstr("\"b\""), HasSubstr("COMPRESSION"), HasSubstr("=x"),
                          HasSubstr("%zz")));
}

}  // namespace
}  // namespace llmd
