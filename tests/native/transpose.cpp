// out[b, c, r] = in[b, r, c] for every element size.

#include "testing.h"

namespace testing {
namespace {

template <int kBytes>
struct Element {
    uint8_t bytes[kBytes];
};

template <int kBytes>
void run(int64_t batch, int64_t rows, int64_t cols) {
    const int64_t in_row = cols + random_int(0, 2), in_batch = rows * in_row + random_int(0, 2);
    const int64_t out_row = rows + random_int(0, 2), out_batch = cols * out_row + random_int(0, 2);
    const int64_t shift = kBytes * random_int(0, 2);
    const int64_t reach_in = (batch - 1) * in_batch + (rows - 1) * in_row + cols;
    const int64_t reach_out = (batch - 1) * out_batch + (cols - 1) * out_row + rows;
    Buffer<uint8_t> in(kBytes * reach_in, shift), out(kBytes * reach_out, shift);
    for (uint8_t& byte : in) byte = static_cast<uint8_t>(random_bits());
    for (uint8_t& byte : out) byte = 0;
    std::vector<uint8_t> want(out.size(), 0);
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < cols; ++c)
                for (int i = 0; i < kBytes; ++i)
                    want[kBytes * (b * out_batch + c * out_row + r) + i] =
                        in[kBytes * (b * in_batch + r * in_row + c) + i];
    const std::string what = "transpose of " + std::to_string(batch) + " x " + std::to_string(rows) + " x " +
                             std::to_string(cols) + " elements of " + std::to_string(kBytes) + " bytes";
    expect_ok(
        longconv_cpu_transpose(out.data(), in.data(), batch, rows, cols, out_batch, out_row, in_batch, in_row, kBytes),
        what);
    Comparison all;
    for (int64_t i = 0; i < out.size(); ++i) all.add(out[i], want[i]);
    all.finish(0, what);
}

}  // namespace

void transpose() {
    expect(longconv_cpu_transpose(nullptr, nullptr, -1, 1, 1, 1, 1, 1, 1, 4) == LONGCONV_BAD_SIZE, "a negative size");
    expect(longconv_cpu_transpose(nullptr, nullptr, 1, 1, 1, 1, 1, 1, 1, 3) == LONGCONV_BAD_ELEMENT, "3 bytes");
    expect_ok(longconv_cpu_transpose(nullptr, nullptr, 0, 5, 5, 1, 1, 1, 1, 4), "nothing to transpose");
    for (int i = 0; i < 60; ++i) {
        const int64_t most = i % 6 == 0 ? 300 : 40;
        const int64_t batch = random_int(1, 3), rows = random_int(1, most), cols = random_int(1, most);
        run<1>(batch, rows, cols);
        run<2>(batch, rows, cols);
        run<4>(batch, rows, cols);
        run<8>(batch, rows, cols);
        run<16>(batch, rows, cols);
    }
}

}  // namespace testing
