// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/http"
)

// ReadInUse asks the proxy of a run folder for the names of the route tables that its
// Envoys have asked for; sorted.
func ReadInUse(ctx context.Context, runDir string) ([]string, error) {
	var names []string
	err := call(ctx, PathsIn(runDir).Control, http.MethodGet, "/in-use", &names)
	return names, err
}
