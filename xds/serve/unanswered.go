// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"fmt"
	"strings"

	"fairlead.io/fairlead/xds"
)

// UnansweredError says what clients had not answered when the time of a Push or Sync
// was over. Later phases were not begun.
type UnansweredError struct {
	Changes []Change // of the phase that was waited for; at least one
	Err     error    // why the time is over
}

// Error names the first three.
func (e *UnansweredError) Error() string {
	var names []string
	for _, c := range e.Changes {
		names = append(names, xds.Short(c.Type)+" "+c.Name)
	}
	if len(names) > 3 {
		names = append(names[:3:3], fmt.Sprintf("%d more", len(names)-3))
	}
	return fmt.Sprintf("wait for answers to %s: %v", strings.Join(names, ", "), e.Err)
}

// Unwrap is the context's error.
func (e *UnansweredError) Unwrap() error { return e.Err }
