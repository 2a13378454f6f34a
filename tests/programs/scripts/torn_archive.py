# was killed amid `torch.save` in place: half an archive
# Group: Whose save it is
# Promise: no save: what is torn is never taken for whole; it is told why
# Expect: nothing event:folder_not_whole

import io
import zipfile

from told import SAVES, train_until_told

whole = io.BytesIO()
with zipfile.ZipFile(whole, "w") as archive:
    archive.writestr("data.pkl", "weights")
SAVES.mkdir(exist_ok=True)
(SAVES / "model.pt").write_bytes(whole.getvalue()[:50])
train_until_told()
