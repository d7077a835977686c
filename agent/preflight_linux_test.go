// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"fairlead.io/fairlead/datapath"
)

// What stands in the way is told in log and Lease, once, and stays known until it was
// looked at again and is no more.
func TestFindings(t *testing.T) {
	var log bytes.Buffer
	a := &agent{log: slog.New(slog.NewTextHandler(&log, nil))}
	tcx := datapath.Finding{Name: "TCX", Level: datapath.Problem, Detail: "not supported", Advice: "update"}
	theirs := datapath.Finding{Name: "socket load balancing", Level: datapath.Warning, Detail: strings.Repeat("x", 1000)}
	a.found([]datapath.Finding{{Name: "privileges", Level: datapath.Fine}, theirs, tcx})
	for _, w := range []string{"level=ERROR msg=\"stands in the way\" what=TCX", "level=WARN msg=\"stands beside\""} {
		if !strings.Contains(log.String(), w) {
			t.Errorf("the log lacks %q: %s", w, &log)
		}
	}
	if strings.Contains(log.String(), "privileges") {
		t.Errorf("the log tells what is fine: %s", &log)
	}
	var told []datapath.Finding
	if err := json.Unmarshal([]byte(a.findingsNoteLocked()), &told); err != nil || len(told) != 2 || told[0] != tcx || len(told[1].Detail) > 310 {
		t.Errorf("%v: %+v", err, told)
	}
	log.Reset()
	a.found([]datapath.Finding{theirs})
	if log.Len() > 0 || len(a.findings) != 2 {
		t.Errorf("the same again: %+v, %s", a.findings, &log)
	}
	a.found([]datapath.Finding{{Name: theirs.Name, Level: datapath.Fine}})
	if len(a.findings) != 1 || a.findings[0] != tcx || !strings.Contains(log.String(), "no more") {
		t.Errorf("mended: %+v, %s", a.findings, &log)
	}
	a.found([]datapath.Finding{{Name: "TCX", Level: datapath.Fine}})
	if a.findingsNoteLocked() != "" {
		t.Errorf("left: %+v", a.findings)
	}
}
