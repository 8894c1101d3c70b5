// Prints crates/qcalib/tests/fixtures/tflite.json: what TensorFlow Lite's own
// `ChooseQuantizationParams` answers, a template in a header that its edition for
// microcontrollers has without the rest of TensorFlow:
//
//   git clone https://github.com/tensorflow/tflite-micro
//   g++ -O1 -std=c++17 -ffp-contract=off -Itflite-micro scripts/make_tflite_fixture.cc -o make
//   ./make $(git -C tflite-micro rev-parse --short HEAD) > crates/qcalib/tests/fixtures/tflite.json
//
// A row is the lowest and the highest integer, the bits of min and of max, then the bits of the scale
// and the zero point.
#include "tensorflow/lite/kernels/internal/quantization_util.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

std::uint32_t Bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

bool first = true;

template <typename T>
void Row(float min, float max, bool narrow) {
  const auto p = tflite::ChooseQuantizationParams<T>(min, max, narrow);
  const int low = std::numeric_limits<T>::min() + narrow;
  const int high = std::numeric_limits<T>::max();
  std::printf("%s  [%d,%d,%u,%u,%u,%d]", first ? "" : ",\n", low, high, Bits(min), Bits(max),
              Bits(static_cast<float>(p.scale)), static_cast<int>(p.zero_point));
  first = false;
}

void Rows(float min, float max) {
  Row<std::uint8_t>(min, max, false);
  Row<std::int8_t>(min, max, false);
  Row<std::int8_t>(min, max, true);
  Row<std::int16_t>(min, max, false);
}

}  // namespace

int main(int argc, char** argv) {
  std::printf("{\n\"tflite-micro\": \"%s\",\n\"params\": [\n", argc > 1 ? argv[1] : "unknown");
  const float ends[][2] = {{-1.f, 1.f},       {0.f, 6.f},       {-3.f, 0.f},     {-0.1f, 25.4f},
                           {-1e30f, 1e30f},   {-1e-30f, 0.f},   {0.f, 1e-30f},   {-127.5f, 127.5f},
                           {-128.f, 127.f},   {-0.5f, 254.5f},  {-2.5f, 252.5f}, {-127.f, 127.f},
                           {-32768.f, 32767.f}};
  for (const auto& r : ends) Rows(r[0], r[1]);
  std::uint64_t state = 1;
  const auto uniform = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(state >> 40) / 16777216.f;
  };
  for (int i = 0; i < 100; ++i) {
    const float size = std::exp2(uniform() * 40.f - 20.f);
    const float low = -uniform() * size;
    Rows(low, (i % 2 ? uniform() : uniform() * uniform() * 30.f) * size + 1e-7f);
  }
  std::printf("\n]\n}\n");
}
