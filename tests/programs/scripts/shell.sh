# has a shell in front, which would die of the notice
# Group: Who hears the notice
# Promise: its save: only who catches the signal is told
# Expect: model=2

perl -e '
  $SIG{USR1} = sub { $told = 1 };
  mkdir $ENV{SAVES}; open(R, ">$ENV{READY}"); close R;
  select(undef, undef, undef, 0.05) while !$told;
  select(undef, undef, undef, 0.4);
  open(F, ">$ENV{SAVES}/model"); print F "2"; close F;
'
echo the shell goes on
