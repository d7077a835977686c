// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strconv"
	"strings"
)

// The releases whose behaviour is known, as minor versions of Istio 1.
const (
	oldestMinor = 22
	newestMinor = 31
)

// profile is what of Istio's behaviour depends on its release. Each field names its
// source in istio/istio; all that is not here is the same in every release that is known.
type profile struct {
	// retries503: the retries that nobody asked for are also made after a 503. Up to 1.23;
	// 1.24 took it to be unsafe (EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY, by default true).
	// pilot/pkg/networking/core/route/retry/retry.go, DefaultPolicy.
	retries503 bool
	// shadowHosts: the host that a copy of a request names ends in "-shadow". Up to 1.27;
	// 1.28 leaves it as it is (DISABLE_SHADOW_HOST_SUFFIX, by default true).
	// pilot/pkg/networking/core/route/route.go, TranslateRequestMirrorPolicy.
	shadowHosts bool
}

// profileOf reads "1.31", "v1.31" or "1.31.2"; "" is the newest.
func profileOf(version string) (profile, error) {
	minor := newestMinor
	if version != "" {
		var ok bool
		if minor, ok = parseMinor(version); !ok {
			return profile{}, fmt.Errorf("istio version %q: want 1.%d to 1.%d", version, oldestMinor, newestMinor)
		}
	}
	return profile{
		retries503:  minor < 24,
		shadowHosts: minor < 28,
	}, nil
}

func parseMinor(s string) (int, bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil && n >= oldestMinor && n <= newestMinor
}
