#include "sim/request.h"

#include <simdjson.h>

#include <cmath>
#include <utility>

#include "base/hash.h"
#include "base/strings.h"
#include "engine/tokens.h"
#include "sim/json_error.h"

namespace llmd::sim {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

// How Python shows a string.
std::string PythonString(std::string_view text) {
  const char quote = text.contains('\'') && !text.contains('"') ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\' || c == quote) {
      out += {'\\', c};
    } else {
      out += c;
    }
  }
  return out + quote;
}

// How vLLM shows the input of a field that failed.
std::string ShownInput(element value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return base::Concat("'<list of ", std::to_string(value.get_array().value().size()),
                          " items>'");
    case element_type::OBJECT:
      return base::Concat("'<dict of ", std::to_string(value.get_object().value().size()),
                          " items>'");
    case element_type::STRING: return PythonString(value.get_string().value());
    case element_type::BOOL: return value.get_bool().value() ? "True" : "False";
    case element_type::NULL_VALUE: return "None";
    default: return simdjson::minify(value);
  }
}

// Collects what is wrong with the fields, as pydantic does, and reports all of it.
class Problems {
 public:
  void Add(std::string_view type, std::string_view where, std::string_view what,
           std::string_view input) {
    const std::string path = base::Concat(where.empty() ? "body" : "body.", where);
    if (count_++ == 0) param_ = path;
    lines_ += base::Concat("\n  {'type': '", type, "', 'loc': '", path, "', 'msg': ",
                    PythonString(what), ", 'input': ", input, "}");
  }
  void Add(std::string_view type, std::string_view where, std::string_view what, element input) {
    Add(type, where, what, ShownInput(input));
  }
  bool any() const { return count_ > 0; }
  ApiError Error() const {
    return {.status = 400,
            .type = "Bad Request",
            .message = base::Concat(std::to_string(count_), " validation error",
                                    count_ == 1 ? "" : "s", ":", lines_),
            .param = param_};
  }

 private:
  int count_ = 0;
  std::string lines_;
  std::string param_;
};

ApiError BadRequest(std::string message, std::string param = "") {
  return {.status = 400, .type = "BadRequestError", .message = std::move(message),
          .param = std::move(param)};
}

ApiError NotJson(std::string_view body, std::string_view fallback) {
  const JsonError error =
      FindJsonError(body).value_or(JsonError{0, fallback});
  const std::string where = base::Concat("body.", std::to_string(error.position));
  return {.status = 400,
          .type = "Bad Request",
          .message = base::Concat(
              "1 validation error:\n  {'type': 'json_invalid', 'loc': '", where,
              "', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {'error': ",
              PythonString(error.message), "}}"),
          .param = where};
}

// The fields that we look at; null counts as absent.
struct Fields {
  std::optional<element> model, messages, tools, prompt, max_tokens, max_completion_tokens, n,
      stream, stream_options, stop, ignore_eos, cache_salt, return_token_ids, return_token_strs,
      temperature, top_p, presence_penalty, frequency_penalty, seed;

  std::optional<element>* Find(std::string_view key) {
    struct Row {
      std::string_view key;
      std::optional<element> Fields::*field;
    };
    static constexpr Row kRows[] = {
        {"model", &Fields::model},
        {"messages", &Fields::messages},
        {"tools", &Fields::tools},
        {"prompt", &Fields::prompt},
        {"max_tokens", &Fields::max_tokens},
        {"max_completion_tokens", &Fields::max_completion_tokens},
        {"n", &Fields::n},
        {"stream", &Fields::stream},
        {"stream_options", &Fields::stream_options},
        {"stop", &Fields::stop},
        {"ignore_eos", &Fields::ignore_eos},
        {"cache_salt", &Fields::cache_salt},
        {"return_token_ids", &Fields::return_token_ids},
        {"return_token_strs", &Fields::return_token_strs},
        {"temperature", &Fields::temperature},
        {"top_p", &Fields::top_p},
        {"presence_penalty", &Fields::presence_penalty},
        {"frequency_penalty", &Fields::frequency_penalty},
        {"seed", &Fields::seed},
    };
    for (const Row& row : kRows) {
      if (row.key == key) return &(this->*row.field);
    }
    return nullptr;
  }
};

std::optional<int64_t> ReadInt(std::optional<element> value, std::string_view where,
                               Problems* problems) {
  if (!value) return std::nullopt;
  switch (value->type()) {
    case element_type::INT64: return value->get_int64().value();
    case element_type::UINT64: return INT64_MAX;
    case element_type::BOOL: return value->get_bool().value() ? 1 : 0;
    case element_type::DOUBLE: {
      const double number = value->get_double().value();
      if (number == std::floor(number) && std::abs(number) < 9e18) {
        return static_cast<int64_t>(number);
      }
      problems->Add("int_from_float", where,
                    "Input should be a valid integer, got a number with a fractional part", *value);
      return std::nullopt;
    }
    case element_type::STRING: {
      const auto number = base::ParseInt(value->get_string().value());
      if (number) return number;
      problems->Add("int_parsing", where,
                    "Input should be a valid integer, unable to parse string as an integer",
                    *value);
      return std::nullopt;
    }
    default:
      problems->Add("int_type", where, "Input should be a valid integer", *value);
      return std::nullopt;
  }
}

std::optional<double> ReadNumber(std::optional<element> value, std::string_view where,
                                 Problems* problems) {
  if (!value) return std::nullopt;
  double number;
  if (value->get(number) == simdjson::SUCCESS) return number;
  if (value->is_bool()) return value->get_bool().value() ? 1 : 0;
  if (!value->is_string()) {
    problems->Add("float_type", where, "Input should be a valid number", *value);
    return std::nullopt;
  }
  const auto parsed = base::ParseDouble(value->get_string().value());
  if (!parsed) {
    problems->Add("float_parsing", where,
                  "Input should be a valid number, unable to parse string as a number", *value);
  }
  return parsed;
}

bool ReadBool(std::optional<element> value, std::string_view where, Problems* problems) {
  if (!value) return false;
  if (value->is_bool()) return value->get_bool().value();
  int64_t number;
  if (value->get(number) == simdjson::SUCCESS && (number == 0 || number == 1)) {
    return number == 1;
  }
  if (value->is_string()) {
    const std::string word = base::ToLower(value->get_string().value());
    for (std::string_view yes : {"true", "1", "yes", "on", "t", "y"}) {
      if (word == yes) return true;
    }
    for (std::string_view no : {"false", "0", "no", "off", "f", "n"}) {
      if (word == no) return false;
    }
  }
  if (value->is_string() || value->is_number()) {
    problems->Add("bool_parsing", where,
                  "Input should be a valid boolean, unable to interpret input", *value);
  } else {
    problems->Add("bool_type", where, "Input should be a valid boolean", *value);
  }
  return false;
}

std::string_view ReadString(std::optional<element> value, std::string_view where,
                            Problems* problems) {
  if (!value) return "";
  if (value->is_string()) return value->get_string().value();
  problems->Add("string_type", where, "Input should be a valid string", *value);
  return "";
}

}  // namespace

struct RequestReader::Impl {
  simdjson::dom::parser parser;
  Options options;
  SimRequest* request = nullptr;
  Problems problems;

  std::optional<ApiError> ReadFields(Route route, const Fields& fields);
  void ReadStops(std::optional<element> stop);
  void ReadStreamOptions(const Fields& fields);
  void ReadMessages(const Fields& fields);
  void ReadMessage(element message, size_t index, Prompt* prompt, std::string* text, bool* user);
  void ReadPrompts(element value);
  void ReadTokenIds(element ids, std::string_view where, Prompt* prompt);

  Prompt* NewPrompt() {
    if (request->prompt_count == request->prompts.size()) request->prompts.emplace_back();
    Prompt* prompt = &request->prompts[request->prompt_count++];
    prompt->tokens.clear();
    prompt->token_count = 0;
    return prompt;
  }
  void AddText(std::string_view text, Prompt* prompt) {
    if (request->return_token_strs && request->prompt_count == 1) {
      for (std::string_view rest = text; size_t n = engine::NextTokenBytes(rest);) {
        request->token_strs.emplace_back(rest.substr(0, n));
        rest.remove_prefix(n);
      }
    }
    if (options.token_ids) {
      engine::Tokenize(text, &prompt->tokens);
      prompt->token_count = prompt->tokens.size();
    } else {
      prompt->token_count += engine::CountTokens(text);
    }
  }
  void AddToken(engine::Token token, std::string_view shown, Prompt* prompt) {
    if (request->return_token_strs && request->prompt_count == 1) {
      request->token_strs.emplace_back(shown);
    }
    if (options.token_ids) prompt->tokens.push_back(token);
    ++prompt->token_count;
  }
  // A token of the template, which no text can be.
  void AddSpecial(std::string_view name, Prompt* prompt) {
    AddToken(engine::TokenId(name), name, prompt);
  }
};

RequestReader::RequestReader() : impl_(std::make_unique<Impl>()) {}
RequestReader::~RequestReader() = default;

std::optional<ApiError> RequestReader::Read(Route route, const Options& options) {
  // Everything of the request before goes, but the memory of its prompts stays.
  std::vector<Prompt> prompts = std::move(request_.prompts);
  request_ = SimRequest{};
  request_.prompts = std::move(prompts);
  impl_->options = options;
  impl_->request = &request_;
  impl_->problems = Problems{};

  body_.reserve(body_.size() + simdjson::SIMDJSON_PADDING);
  element root;
  const auto error = impl_->parser.parse(body_.data(), body_.size(), false).get(root);
  if (error) return NotJson(body_, simdjson::error_message(error));
  simdjson::dom::object object;
  if (root.get(object)) {
    impl_->problems.Add("model_attributes_type", "",
                        "Input should be a valid dictionary or object to extract fields from",
                        root);
    return impl_->problems.Error();
  }
  Fields fields;
  for (const auto [key, value] : object) {
    std::optional<element>* field = fields.Find(key);
    if (field == nullptr) continue;
    // Of a repeated key the last counts, as in Python.
    *field = value.is_null() ? std::nullopt : std::optional<element>(value);
  }
  if (route != Route::kCompletions && !fields.messages &&
      !(route == Route::kTokenize && fields.prompt)) {
    impl_->problems.Add(
        "missing", route == Route::kTokenize ? "prompt" : "messages", "Field required", root);
  }
  if (route == Route::kCompletions && !fields.prompt) {
    impl_->problems.Add("missing", "prompt", "Field required", root);
  }
  return impl_->ReadFields(route, fields);
}

std::optional<ApiError> RequestReader::Impl::ReadFields(Route route, const Fields& f) {
  request->model = ReadString(f.model, "model", &problems);
  request->temperature = ReadNumber(f.temperature, "temperature", &problems);
  request->top_p = ReadNumber(f.top_p, "top_p", &problems);
  request->presence_penalty = ReadNumber(f.presence_penalty, "presence_penalty", &problems);
  request->frequency_penalty = ReadNumber(f.frequency_penalty, "frequency_penalty", &problems);
  const auto n = ReadInt(f.n, "n", &problems);
  request->max_tokens = ReadInt(f.max_tokens, "max_tokens", &problems);
  if (route == Route::kChat) {
    const auto newer = ReadInt(f.max_completion_tokens, "max_completion_tokens", &problems);
    if (newer) request->max_tokens = newer;
  }
  request->seed = ReadInt(f.seed, "seed", &problems);
  request->stream = ReadBool(f.stream, "stream", &problems);
  request->ignore_eos = ReadBool(f.ignore_eos, "ignore_eos", &problems);
  request->return_token_ids = ReadBool(f.return_token_ids, "return_token_ids", &problems);
  request->return_token_strs = ReadBool(f.return_token_strs, "return_token_strs", &problems);
  if (request->return_token_ids || route == Route::kTokenize) options.token_ids = true;
  ReadStreamOptions(f);
  ReadStops(f.stop);
  request->cache_salt = ReadString(f.cache_salt, "cache_salt", &problems);
  if (route == Route::kCompletions ? f.prompt.has_value() : f.prompt && !f.messages) {
    ReadPrompts(*f.prompt);
  } else if (f.messages) {
    ReadMessages(f);
  }
  if (problems.any()) return problems.Error();

  if (f.stream_options && !request->stream && route != Route::kTokenize) {
    return BadRequest(
        "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
        "stream_options");
  }
  if (n.value_or(1) < 1) {
    return BadRequest(base::Concat("n must be at least 1, got ", std::to_string(*n), "."));
  }
  if (n.value_or(1) > static_cast<int64_t>(kPromptsMax)) {
    return BadRequest(base::Concat("n must be at most ", std::to_string(kPromptsMax), ", got ",
                                   std::to_string(*n), "."));
  }
  request->n = static_cast<uint32_t>(n.value_or(1));
  return std::nullopt;
}

void RequestReader::Impl::ReadStreamOptions(const Fields& f) {
  if (!f.stream_options) return;
  simdjson::dom::object object;
  if (f.stream_options->get(object)) {
    problems.Add("model_attributes_type", "stream_options",
                 "Input should be a valid dictionary or object to extract fields from",
                 *f.stream_options);
    return;
  }
  for (const auto [key, value] : object) {
    if (value.is_null()) continue;
    if (key == "include_usage") {
      request->include_usage = ReadBool(value, "stream_options.include_usage", &problems);
    } else if (key == "continuous_usage_stats") {
      request->continuous_usage =
          ReadBool(value, "stream_options.continuous_usage_stats", &problems);
    }
  }
}

void RequestReader::Impl::ReadStops(std::optional<element> stop) {
  if (!stop) return;
  if (stop->is_string()) {
    request->stops.emplace_back(stop->get_string().value());
    return;
  }
  simdjson::dom::array array;
  if (stop->get(array)) {
    problems.Add("string_type", "stop", "Input should be a valid string", *stop);
    return;
  }
  size_t i = 0;
  for (const element item : array) {
    const std::string where = base::Concat("stop.", std::to_string(i++));
    request->stops.emplace_back(ReadString(item, where, &problems));
  }
}

// The template: every message is <|start|> role <|message|> content <|end|>, and the reply begins
// behind <|start|> assistant <|message|>; so a conversation is a prefix of its continuation.
void RequestReader::Impl::ReadMessages(const Fields& f) {
  simdjson::dom::array messages;
  if (f.messages->get(messages)) {
    problems.Add("list_type", "messages", "Input should be a valid list", *f.messages);
    return;
  }
  Prompt* prompt = NewPrompt();
  if (f.tools) AddText(std::string(simdjson::minify(*f.tools)), prompt);
  std::string last, last_of_user;
  bool user_spoke = false;
  size_t index = 0;
  for (const element message : messages) {
    std::string text;
    bool user = false;
    ReadMessage(message, index++, prompt, options.echo_text ? &text : nullptr, &user);
    if (!options.echo_text) continue;
    if (user) last_of_user = text;
    user_spoke |= user;
    last = std::move(text);
  }
  AddSpecial("<|start|>", prompt);
  AddText("assistant", prompt);
  AddSpecial("<|message|>", prompt);
  if (options.echo_text) request->echo.push_back(user_spoke ? last_of_user : last);
}

void RequestReader::Impl::ReadMessage(element message, size_t index, Prompt* prompt,
                                      std::string* text, bool* user) {
  const std::string where = base::Concat("messages.", std::to_string(index));
  simdjson::dom::object object;
  if (message.get(object)) {
    problems.Add("dict_type", where, "Input should be a valid dictionary", message);
    return;
  }
  std::optional<element> role, content, tool_calls;
  for (const auto [key, value] : object) {
    if (value.is_null()) continue;
    if (key == "role") role = value;
    if (key == "content") content = value;
    if (key == "tool_calls") tool_calls = value;
  }
  if (!role) {
    problems.Add("missing", where + ".role", "Field required", message);
    return;
  }
  const std::string_view role_name = ReadString(role, where + ".role", &problems);
  *user = role_name == "user";
  auto add = [&](std::string_view part) {
    AddText(part, prompt);
    if (text) text->append(part);
  };
  AddSpecial("<|start|>", prompt);
  AddText(role_name, prompt);
  AddSpecial("<|message|>", prompt);
  simdjson::dom::array parts;
  if (content && content->is_string()) {
    add(content->get_string().value());
  } else if (content && content->get(parts) == simdjson::SUCCESS) {
    for (const element part : parts) {
      std::string_view words;
      if (part.is_string()) {
        add(part.get_string().value());
      } else if (part["text"].get(words) == simdjson::SUCCESS) {
        add(words);
      } else {
        // Media is one token, the same for the same bytes.
        AddToken(engine::TokenId(std::string(simdjson::minify(part))), "<|media|>", prompt);
      }
    }
  } else if (content) {
    problems.Add("string_type", where + ".content", "Input should be a valid string", *content);
  }
  if (tool_calls) AddText(std::string(simdjson::minify(*tool_calls)), prompt);
  AddSpecial("<|end|>", prompt);
}

// "text", ["text", ...], [1, 2, ...] or [[1, 2, ...], ...].
void RequestReader::Impl::ReadPrompts(element value) {
  auto add_text = [this](std::string_view text) {
    AddText(text, NewPrompt());
    if (options.echo_text) request->echo.emplace_back(text);
  };
  if (value.is_string()) return add_text(value.get_string().value());
  simdjson::dom::array list;
  if (value.get(list) || list.size() == 0) {
    problems.Add("string_type", "prompt", "Input should be a valid string", value);
    return;
  }
  if (list.at(0).is_int64()) return ReadTokenIds(value, "prompt", NewPrompt());
  size_t i = 0;
  for (const element item : list) {
    const std::string where = base::Concat("prompt.", std::to_string(i++));
    if (i > kPromptsMax) {
      problems.Add("too_long", "prompt", "List should have at most 1024 items", value);
      return;
    }
    if (item.is_string()) {
      add_text(item.get_string().value());
    } else {
      ReadTokenIds(item, where, NewPrompt());
    }
  }
}

void RequestReader::Impl::ReadTokenIds(element ids, std::string_view where, Prompt* prompt) {
  simdjson::dom::array list;
  if (ids.get(list)) {
    problems.Add("string_type", where, "Input should be a valid string", ids);
    return;
  }
  std::string shown;
  for (const element id : list) {
    int64_t number;
    if (id.get(number) || number < 0 || number > UINT32_MAX) {
      problems.Add("int_type", where, "Input should be a valid integer", id);
      return;
    }
    const std::string digits = std::to_string(number);
    AddToken(static_cast<engine::Token>(number), digits, prompt);
    if (options.echo_text) shown += digits + " ";
  }
  if (options.echo_text) request->echo.push_back(std::move(shown));
}

}  // namespace llmd::sim
