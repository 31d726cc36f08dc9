// A program that takes cp_als_small through all that it does, for ThreadSanitizer to look on.
#include "cp_als_small.cpp"

#include <vector>

namespace {

double next_number(unsigned& state) {
    state = state * 1664525u + 1013904223u;
    return double(state >> 8) / (1 << 24) - 0.5;
}

struct Problem {
    int order, size[5], rank, split, blocks, threads;
    unsigned free;
    // Terms of the tensor, 0: noise throughout.
    int terms;
    double tol, l2;

    int bytes() const { return bytes_taken(order, size, rank, split, blocks); }
};

void fit(const Problem& p) {
    unsigned state = 1;
    int entries = 1, total = 0;
    for (int n = 0; n < p.order; ++n) entries *= p.size[n], total += p.size[n];
    std::vector<REAL> x(entries), factors(total * p.rank), truth(total * p.rank);
    for (REAL& value : factors) value = REAL(next_number(state));
    for (REAL& value : truth) value = REAL(next_number(state));
    for (int e = 0; e < entries; ++e) {
        x[e] = p.terms ? REAL(0) : REAL(next_number(state));
        for (int r = 0; r < p.terms; ++r) {
            REAL value = 1;
            for (int n = p.order - 1, rest = e, first = total; n >= 0; --n) {
                first -= p.size[n];
                value *= truth[(first + rest % p.size[n]) * p.rank + r];
                rest /= p.size[n];
            }
            x[e] += value;
        }
    }
    constexpr int SWEEPS = 20;
    std::vector<double> errors(SWEEPS), ridges(1), watched(4 * p.rank * p.rank);
    int sweeps = 0, status = 0;
    const double eps = sizeof(REAL) == 4 ? 1.2e-7 : 2.2e-16;
    const char* wrong = launch(
        1, p.blocks, p.threads, p.bytes(), 0, x.data(), factors.data(), errors.data(), &sweeps, &status,
        ridges.data(), watched.data(), p.order, p.size[0], p.size[1], p.size[2], p.size[3],
        p.size[4], p.rank, p.split, p.blocks, p.free, SWEEPS, p.tol, 2 * eps, 8 * eps, 20 * std::sqrt(eps),
        4 * p.rank * eps, p.l2
    );
    if (wrong) {
        std::puts(wrong);
        std::exit(1);
    }
    std::printf(
        "%d sweeps, status %d, ridge %.0e, error %.1e\n", sweeps, status, ridges[0],
        errors[sweeps - 1]
    );
}

}  // namespace

int main() {
    // Blocks of a tensor.
    constexpr int MOST = CLUSTERED ? 3 : 1;
    // Sums of four numbers; each side of several modes; threads that share the terms of a tile.
    fit({3, {5, 4, 6, 1, 1}, 3, 1, MOST, 64, 7, 0, 0, 0});
    fit({3, {5, 4, 6, 1, 1}, 3, 2, 1, 96, 7, 0, 1e-4, 1e-3});
    fit({5, {2, 3, 2, 3, 2}, 4, 2, MOST, 64, 27, 0, 0, 0});
    // A ridge, the residual itself, in double precision, and its end.
    fit({3, {6, 5, 4, 1, 1}, 4, 1, MOST, 64, 7, 1, 1e-9, 0});
    // More rows than are solved for at once, fewer threads than tiles.
    fit({3, {70, 3, 2, 1, 1}, 5, 1, MOST, 32, 7, 0, 0, 0});
}
