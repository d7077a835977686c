// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"fairlead.io/fairlead/hubble"
)

// lookForLost is how often it is seen whether flows were lost before they came here.
const lookForLost = time.Second

// lostFlows tells who observes of flows that were lost before they came here. kernel counts
// those that its ring had no room for, since before this agent.
func (a *agent) lostFlows(ctx context.Context, kernel func() (uint64, error)) error {
	counts := map[string]func() (uint64, error){
		hubble.LostInKernel:    kernel,
		hubble.LostInAccessLog: func() (uint64, error) { return a.alog.Lost(), nil },
	}
	told := map[string]uint64{}
	if n, err := kernel(); err == nil {
		told[hubble.LostInKernel] = n
	}
	t := time.NewTicker(lookForLost)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		for _, where := range []string{hubble.LostInAccessLog, hubble.LostInKernel} {
			n, err := counts[where]()
			if err != nil || n <= told[where] { // what cannot be read now is told later
				continue
			}
			a.flows.Add(hubble.Flow{Time: time.Now(), Node: a.opts.Node, Verdict: hubble.Lost, Reason: where, Lost: n - told[where]})
			told[where] = n
		}
	}
}
