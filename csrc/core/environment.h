// Variables of the environment.
#pragma once

#include <cstdlib>
#include <string>

namespace crossent {

// A variable's value; null where it is not set, or empty.
inline const char* environment(const char* name) {
  const char* const value = std::getenv(name);
  return value && *value ? value : nullptr;
}

// NAME='value' for a message, with ? for what a terminal may not show.
inline std::string quoted(const char* name, const char* value) {
  std::string text = std::string(name) + "='" + value + "'";
  for (char& letter : text) {
    if (letter < ' ' || letter > '~') letter = '?';
  }
  return text;
}

}  // namespace crossent
