"""Methods that add one objective to the loss on the labels.

Each method is called like its objective and takes the objective's arguments,
and in addition `label_weight`, `student` and `teacher`; see
`phases.joint.single`. All of them take one phase of the recipe's length.
"""

from jaxdistill import objectives
from jaxdistill.phases.joint import kd as kd
from jaxdistill.phases.joint import single

tempered = single('tempered', objectives.tempered)
logits = single('logits', objectives.logits)
dkd = single('dkd', objectives.dkd)
dist = single('dist', objectives.dist)
hint = single('hint', objectives.hint)
at = single('at', objectives.at)
nst = single('nst', objectives.nst)
sp = single('sp', objectives.sp)
cc = single('cc', objectives.cc)
vid = single('vid', objectives.vid)
rkd = single('rkd', objectives.rkd)
pkt = single('pkt', objectives.pkt)
crd = single('crd', objectives.crd)
ofd = single('ofd', objectives.ofd)
fd = single('fd', objectives.fd)
reviewkd = single('reviewkd', objectives.reviewkd)
srrl = single('srrl', objectives.srrl)
pixel_kd = single('pixel_kd', objectives.pixel_kd)
depth_kd = single('depth_kd', objectives.depth_kd)
cwd = single('cwd', objectives.cwd)
fgd = single('fgd', objectives.fgd)
ifv = single('ifv', objectives.ifv)
pairwise = single('pairwise', objectives.pairwise)
embedding = single('embedding', objectives.embedding, label_weight=0.0)
refinery = single('refinery', objectives.refinery, label_weight=0.0)
