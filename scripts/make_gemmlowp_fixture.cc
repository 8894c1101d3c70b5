// Prints crates/qcalib/tests/fixtures/gemmlowp.json: what gemmlowp itself answers, by the code of
// its doc/quantization_example.cc. With Debian's libgemmlowp-dev:
//
//   zcat /usr/share/doc/libgemmlowp-dev/doc/quantization_example.cc.gz > quantization_example.cc
//   g++ -O1 -pthread -I. -I/usr/include/gemmlowp/public scripts/make_gemmlowp_fixture.cc -o make
//   ./make > crates/qcalib/tests/fixtures/gemmlowp.json
//
// A row is the bits of min and of max, then the bits of the scale and the zero point.
#define main example_main
#include "quantization_example.cc"
#undef main

#include <cstdio>
#include <cstring>

namespace {

std::uint32_t Bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

bool first = true;

void Row(float min, float max) {
  const QuantizationParams p = ChooseQuantizationParams(min, max);
  std::printf("%s  [%u,%u,%u,%u]", first ? "" : ",\n", Bits(min), Bits(max), Bits(p.scale),
              static_cast<unsigned>(p.zero_point));
  first = false;
}

}  // namespace

int main() {
  std::printf("{\n\"gemmlowp\": \"20211220.e844ffd\",\n\"params\": [\n");
  const float ends[][2] = {{-1.f, 1.f},    {0.f, 6.f},     {0.5f, 2.f},  {-3.f, -1.f},
                           {-0.1f, 25.4f}, {-1e30f, 1e30f}, {-1e-30f, 0.f}, {0.f, 1e-38f},
                           {-127.5f, 127.5f}, {-128.f, 127.f}, {-0.5f, 254.5f}, {-2.5f, 252.5f}};
  for (const auto& r : ends) Row(r[0], r[1]);
  std::uint64_t state = 1;
  const auto uniform = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(state >> 40) / 16777216.f;
  };
  for (int i = 0; i < 400; ++i) {
    const float size = std::exp2(uniform() * 40.f - 20.f);
    const float low = -uniform() * size;
    Row(low, (i % 2 ? uniform() : uniform() * uniform() * 30.f) * size + 1e-7f);
  }
  std::printf("\n]\n}\n");
}
