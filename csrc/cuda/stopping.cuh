#pragma once
// When a fit is over: tensorfast.convergence.StoppingRule, for one thread or for all of a block
// that know the same errors.

enum Status { RUNNING, CONVERGED, PRECISION_LIMIT, STOPPED, MAX_ITER, NOT_FINITE };

struct StoppingRule {
    double tol, jitter, floor;
    bool monotone;
    // The last error; the last that was good to tol, and its sweep, 0 where there was none.
    double last = 0, trusted = 0;
    int trusted_at = 0;

    __device__ Status judged(double fall) const {
        if (fall < tol && -fall < tol) return CONVERGED;
        return monotone && fall < 0 ? PRECISION_LIMIT : RUNNING;
    }

    __device__ bool at_limit(double error) const { return 0 < error && error < floor; }

    // Whether three scalars tell changes of tol at this error.
    __device__ bool resolves(double error) const { return jitter < tol * error; }

    // Whether the error of three scalars is to be replaced by that of the residual itself.
    __device__ bool asks(int sweep, double error) const {
        return tol > 0 && sweep > 1 && !at_limit(error) && !resolves(error)
            && judged(last - error) != RUNNING;
    }

    // error: as it is to be reported. exact: whether it is the residual's; asked: because of asks.
    __device__ Status status(int sweep, double error, bool exact, bool asked) {
        last = error;
        if (!(tol > 0)) return RUNNING;
        if (!asked && at_limit(error)) return PRECISION_LIMIT;
        if (!exact && !resolves(error)) return RUNNING;
        const Status found =
            trusted_at ? judged((trusted - error) / (sweep - trusted_at)) : RUNNING;
        trusted = error;
        trusted_at = sweep;
        return found;
    }
};
