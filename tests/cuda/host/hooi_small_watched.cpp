// A program that takes hooi_small through all that it does, for ThreadSanitizer to look on.
#include "hooi_small.cpp"

#include <vector>

namespace {

double next_number(unsigned& state) {
    state = state * 1664525u + 1013904223u;
    return double(state >> 8) / (1 << 24) - 0.5;
}

struct Problem {
    int order, size[5], rank[5], threads;
    // Modes that shrink, in order.
    unsigned modes;
    int count;
    // Whether the tensor has rank 1, or else is noise.
    bool exact;
    double tol;
};

void iterate(const Problem& p) {
    unsigned state = 1;
    int entries = 1, kept = 1, total = 0;
    for (int n = 0; n < p.order; ++n) {
        entries *= p.size[n];
        kept *= p.rank[n];
        total += p.size[n] * p.rank[n];
    }
    std::vector<REAL> x(entries), factors, core(kept), line(64);
    for (REAL& value : line) value = REAL(next_number(state));
    for (int e = 0; e < entries; ++e) {
        x[e] = p.exact ? REAL(1) : REAL(next_number(state));
        for (int n = p.order - 1, rest = e; p.exact && n >= 0; rest /= p.size[n--])
            x[e] *= line[5 * n + rest % p.size[n]];
    }
    for (int n = 0; n < p.order; ++n)
        for (int e = 0; e < p.size[n] * p.rank[n]; ++e)
            factors.push_back(e / p.rank[n] == e % p.rank[n]);
    constexpr int SWEEPS = 4;
    std::vector<double> errors(SWEEPS);
    int sweeps = 0, status = 0;
    const double eps = sizeof(REAL) == 4 ? 1.2e-7 : 2.2e-16;
    const char* wrong = launch(
        1, 1, p.threads, bytes_taken(p.order, p.size, p.rank, p.modes, p.count), 0, x.data(),
        factors.data(), core.data(), errors.data(), &sweeps, &status, p.order, p.size[0], p.size[1],
        p.size[2], p.size[3], p.size[4], p.rank[0], p.rank[1], p.rank[2], p.rank[3], p.rank[4],
        p.modes, p.count, SWEEPS, p.tol, 2 * eps, 8 * eps, 20 * std::sqrt(eps)
    );
    if (wrong) {
        std::puts(wrong);
        std::exit(1);
    }
    std::printf("%d sweeps, status %d, error %.0e\n", sweeps, status, errors[sweeps - 1]);
}

}  // namespace

int main() {
    // More pairs of columns than one warp rotates, an odd number, threads that share the terms of
    // a tile, tiles that share a thread, one mode that shrinks and all of four.
    iterate({3, {19, 4, 6, 1, 1}, {3, 2, 5, 1, 1}, 64, 0x210, 3, false, 0});
    iterate({3, {5, 4, 8, 1, 1}, {5, 4, 4, 1, 1}, 96, 0x2, 1, false, 1e-2});
    iterate({4, {2, 3, 2, 3, 1}, {1, 2, 1, 2, 1}, 32, 0x0123, 4, false, 0});
    // The residual itself, in double precision.
    iterate({3, {6, 5, 4, 1, 1}, {2, 2, 2, 1, 1}, 64, 0x102, 3, true, 0});
}
