// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"fairlead.io/fairlead/agent"
)

// waitingShown is how many resources are named one by one.
const waitingShown = 10

// waitingRows are the rows of a status that are about what Envoy has not acknowledged,
// and about doing without it.
func waitingRows(s *agent.Status) [][]string {
	var rows [][]string
	for i, w := range s.Waiting {
		if i == waitingShown {
			rows = append(rows, []string{"waiting", fmt.Sprintf("%d more", len(s.Waiting)-i)})
			break
		}
		rows = append(rows, []string{"waiting", fmt.Sprintf("%s %s: not acknowledged since %s, longer than %s", w.Type, w.Name, w.Since.Format(time.TimeOnly), s.AckLimit)})
	}
	absent := string(s.WhenProxyAbsent)
	if s.BypassedSince != nil {
		absent += ": the kernel balances instead, since " + s.BypassedSince.Format(time.TimeOnly)
	}
	return append(rows, []string{"proxy absent", orDash(absent)})
}

// printRejected writes a block for each rejection; nothing if there is none.
func printRejected(w io.Writer, all []agent.Rejected, now time.Time) error {
	for i, r := range all {
		if i == 0 {
			fmt.Fprintf(w, "\nREJECTED\n")
		}
		who := "Envoy"
		if r.Version == "" {
			who = "not rendered"
		}
		fmt.Fprintf(w, "%s %s for %v, served: %s\n", r.Type, r.Name, now.Sub(r.Since).Round(time.Second), r.Serving)
		fmt.Fprintf(w, "    %s: %s\n", who, r.Detail)
		for _, s := range r.Sources {
			fmt.Fprintf(w, "    %s\n", s)
		}
		if r.Field != "" {
			if _, err := fmt.Fprintf(w, "    look at %s: %q\n", r.Field, r.Value); err != nil {
				return err
			}
		}
	}
	return nil
}
