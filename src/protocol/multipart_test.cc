#include "protocol/multipart.h"

#include <gtest/gtest.h>

#include <string>

namespace llmd::protocol {
namespace {

using State = MultipartModelScanner::State;

constexpr std::string_view kUpload =
    "--XyZ\r\n"
    "Content-Disposition: form-data; name=\"file\"; filename=\"a; name=\\\"model\\\".wav\"\r\n"
    "Content-Type: audio/wav\r\n\r\n"
    "RIFF\r\n--Xy\r\r\n--not it\r\n--XyZ\r\n"
    "content-disposition: form-data; name=model\r\n\r\n"
    "whisper\r\n-large\r\n"
    "--XyZ--\r\n";

TEST(Multipart, FindsTheModelBehindAFile) {
  MultipartModelScanner scanner("XyZ");
  EXPECT_EQ(scanner.Feed(kUpload), State::kFound);
  EXPECT_EQ(scanner.model(), "whisper\r\n-large");
  EXPECT_EQ(kUpload.substr(scanner.model_begin(), scanner.model_end() - scanner.model_begin()),
            scanner.model());
}

struct Outcome {
  State state;
  std::string model;
  bool operator==(const Outcome&) const = default;
};

Outcome Scan(std::string_view boundary, std::string_view body, size_t cut) {
  MultipartModelScanner scanner(boundary);
  scanner.Feed(body.substr(0, cut));
  const State state = scanner.Feed(body.substr(cut));
  return {state, std::string(scanner.model())};
}

TEST(Multipart, TableAtEveryCut) {
  constexpr std::string_view kModelPart =
      "Content-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n";
  const std::string padding(MultipartModelScanner::kPartHeaderBytesMax, 'x');
  const std::string long_model(MultipartModelScanner::kModelBytesMax + 1, 'm');
  const auto concat = [](auto... parts) { return (std::string(parts) + ...); };
  const struct {
    std::string body;
    Outcome want;
  } cases[] = {
      {std::string(kUpload), {State::kFound, "whisper\r\n-large"}},
      {concat("preamble\r\n--XyZ \t\r\n", kModelPart, "--XyZ--"), {State::kFound, "m"}},
      {concat("--XyZ\n", "Content-Disposition: form-data; name=\"model\"\n\nm\r\n--XyZ"),
       {State::kFound, "m"}},
      {concat("--XyZ\r\n\r\nno headers\r\n--XyZ\r\n", kModelPart, "--XyZ"), {State::kFound, "m"}},
      {"--XyZ\r\nContent-Disposition: form-data; name=\"model\"; "
       "filename=\"f\"\r\n\r\nm\r\n--XyZ--",
       {State::kAbsent, ""}},
      {"--XyZ\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nm\r\n--XyZ--\r\n",
       {State::kAbsent, ""}},
      {"--XyZ--", {State::kAbsent, ""}},
      {"", {State::kMore, ""}},
      {"no multipart at all", {State::kMore, ""}},
      {"--XyZab\r\n", {State::kMalformed, ""}},
      {"--XyZ\r\nno colon\r\n", {State::kMalformed, ""}},
      {concat("--XyZ\r\na: ", padding), {State::kMalformed, ""}},
  };
  for (const auto& c : cases) {
    for (size_t cut = 0; cut <= c.body.size(); ++cut) {
      ASSERT_EQ(Scan("XyZ", c.body, cut).state, c.want.state) << c.body << " cut at " << cut;
      ASSERT_EQ(Scan("XyZ", c.body, cut).model, c.want.model) << c.body << " cut at " << cut;
    }
  }
  const std::string too_long = concat("--XyZ\r\nContent-Disposition: form-data; name=model\r\n\r\n",
                                      long_model, "\r\n--XyZ");
  EXPECT_EQ(Scan("XyZ", too_long, 50).state, State::kMalformed);
}

TEST(Multipart, BoundaryTable) {
  const struct {
    std::string_view content_type;
    std::optional<std::string> boundary;
  } cases[] = {
      {"multipart/form-data; boundary=----WebKitFormBoundaryAbC", "----WebKitFormBoundaryAbC"},
      {"Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b?c\"", "a b?c"},
      {"multipart/form-data", std::nullopt},
      {"multipart/form-data; boundary=", std::nullopt},
      {"multipart/form-data; boundary=\"unclosed", std::nullopt},
      {"multipart/form-data; boundary=a\rb", std::nullopt},
      {"multipart/form-data; "
       "boundary=1234567890123456789012345678901234567890123456789012345678901234"
       "5678901",
       std::nullopt},
      {"multipart/mixed; boundary=x", std::nullopt},
      {"application/json", std::nullopt},
  };
  for (const auto& c : cases)
    EXPECT_EQ(MultipartBoundary(c.content_type), c.boundary) << c.content_type;
}

}  // namespace
}  // namespace llmd::protocol
